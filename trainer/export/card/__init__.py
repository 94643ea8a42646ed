"""The model card: what whoever receives the exports has to know of them."""
