"""The commands people type, and the wiring of trainer, cluster and delivery behind them."""
