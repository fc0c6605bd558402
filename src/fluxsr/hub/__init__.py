"""Model cards, licences and publishing to the Hugging Face Hub."""
