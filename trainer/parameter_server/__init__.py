"""What the parameter_server strategy is made of: its roles, its remote calls, and where each part of the state lies."""
