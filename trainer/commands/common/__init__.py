"""What several commands share: a trained run, and the verdict on the parts of a step."""
