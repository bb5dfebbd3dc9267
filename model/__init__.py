"""The specification as a program: pure functions over frozen values.

Nothing here reads a file, a clock, randomness, a thread or another room of the project; a test holds that.
"""
