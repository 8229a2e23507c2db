"""Who may ask what: roles, tokens, and the door that checks them."""
