"""What exists: experiments, variants, segments, users, keys and the record of who changed them."""
