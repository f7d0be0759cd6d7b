"""Fetching what strangers' URLs name, and nothing inside the own network. Runs in the fetch process."""
