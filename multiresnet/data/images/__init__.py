"""Images, masks and volumes: reading, pairing, checking, augmenting, serving."""
