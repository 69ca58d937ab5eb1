"""`drawnet`: a small convolutional network that ships with the project, trained on generated pictures alone."""
