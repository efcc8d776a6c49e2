"""How good a trained model is (§4.2–4.3): clips, features, protocols, metrics, result files."""
