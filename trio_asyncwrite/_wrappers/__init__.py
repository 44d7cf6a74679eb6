"""Writers over writers."""
