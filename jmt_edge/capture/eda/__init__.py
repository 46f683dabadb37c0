"""EDA boards on a serial line: one module per protocol, each a pure decoder and a driver."""
