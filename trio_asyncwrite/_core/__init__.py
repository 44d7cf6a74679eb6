"""What all else stands on: the trait, its shell, and small parts."""
