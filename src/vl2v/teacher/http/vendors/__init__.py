"""One adapter per vendor: builds requests, parses responses, classifies errors and computes prices."""
