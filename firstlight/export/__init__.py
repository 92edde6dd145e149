"""What leaves firstlight: predictions in the form that a competition asks for."""
