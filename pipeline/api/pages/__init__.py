"""The pages of the front end: type a message, label messages, sign in.

A page is a template in `templates/`, a style sheet and one script of its own in `static/`. No page loads anything from
elsewhere.
"""
