"""`snapspec explain`: a clause, why it is there, where the model keeps it, and a legal and an illegal history."""
