"""What happens inside one training process: data, models, the step, the loop, its checkpoints and its records."""
