"""What both HTTP services share: the vendor's, and the student's."""
