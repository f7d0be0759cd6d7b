"""The HTTP side: what starts multi-model-server and what runs inside its workers. No torch here."""
