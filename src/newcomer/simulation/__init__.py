"""Traffic of a simulated world against a service: `newcomer simulate`."""
