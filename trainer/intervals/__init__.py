"""How often a run saves its state: chosen from what saving costs and how often the run is interrupted."""
