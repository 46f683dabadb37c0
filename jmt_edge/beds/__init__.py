"""Many beds over MQTT: what a bedside unit publishes, and the station that shows all of them."""
