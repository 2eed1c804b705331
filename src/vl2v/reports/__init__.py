"""A finished run or benchmark as one page that needs nothing else, and every figure's values as CSV."""
