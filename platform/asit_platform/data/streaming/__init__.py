"""What stands behind `data/stream.py`: order, reading, rows, and what is made of them."""
