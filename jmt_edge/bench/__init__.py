"""Measurements that can be compared: per stage, with the machine's state beside them, and predictions named so."""
