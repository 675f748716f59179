"""Do two files compute the same?"""
