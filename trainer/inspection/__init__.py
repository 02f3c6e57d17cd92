"""What the values of a source look like, and whether the values of another time still do."""
