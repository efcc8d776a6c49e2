"""The search page: a small server and its front end."""
