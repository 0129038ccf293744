"""Drawing of the synthetic people, places and cameras; reprolib.datasets.synthetic makes datasets of them."""
