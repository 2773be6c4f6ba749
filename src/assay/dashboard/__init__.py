"""Server-rendered pages for those who would rather look than read: experiments, results, and what runs."""
