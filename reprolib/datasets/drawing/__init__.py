"""How the synthetic people, places and cameras are drawn; reprolib.datasets.synthetic makes datasets of them."""
