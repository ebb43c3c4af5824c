"""Several worker processes of one program: what starts them again, and what they report."""
