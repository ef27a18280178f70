"""The HTTP face of the registry; the only room that sees FastAPI, with app.py."""
