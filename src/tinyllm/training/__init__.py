"""From shards and a recipe to a trained model: schedule, optimizer, step, evaluation, checkpoints, the loop."""
