"""Leasehold's control plane: MAC and IP addresses for virtual machines, served by Kea exactly as promised."""
