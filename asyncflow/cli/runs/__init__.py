"""`asyncflow runs`: what runs a store holds; one of them; deleting them; writing their items into a file."""
