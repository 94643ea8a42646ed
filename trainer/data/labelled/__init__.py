"""Labelled images that a finished model is measured on, whatever it was trained on."""
