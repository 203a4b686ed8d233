"""`asyncflow items`: the items of a stored run: listing them, showing one, having some run again."""
