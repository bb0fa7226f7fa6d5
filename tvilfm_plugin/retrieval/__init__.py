"""Search: a gallery index, and a retriever that asks it with an infrared image, words, or both."""
