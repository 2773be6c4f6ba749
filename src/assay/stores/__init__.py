"""The open parts of one installation, embedded or on PostgreSQL, and what a command may ask of them."""
