"""Networks over the fields of click events: embeddings, graphs, towers."""
