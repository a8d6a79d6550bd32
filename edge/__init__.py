"""The agent that runs beside a scanner: receives, keeps, and sends studies to the cloud."""
