"""What an X-ray image is: its pixels, its metadata, its quality, its labels, and how its person is kept private."""
