"""Vectors: histories with what each call may answer, made by the model from a seed, for those who check without the kit."""
