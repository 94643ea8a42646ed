"""The commands of `python -m trainer`: one file each, with its `Options` and `run(options)`.

A command imports TensorFlow when it runs, not when its module is loaded, so that a wrong flag is answered at once.
"""
