variable "name" {
  description = "Prefix of every resource; bucket names are global, so make it your own."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,39}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, at most 40."
  }
}

variable "evidence_days" {
  description = "How long nobody can change or delete evidence (ledger copies, decision records, reports)."
  type        = number
  default     = 3650
}

variable "evidence_mode" {
  description = "GOVERNANCE: a privileged account can lift the lock. COMPLIANCE: nobody can, not even root."
  type        = string
  default     = "GOVERNANCE"

  validation {
    condition     = contains(["GOVERNANCE", "COMPLIANCE"], var.evidence_mode)
    error_message = "GOVERNANCE or COMPLIANCE."
  }
}

variable "alert_emails" {
  description = "Who is told about alerts; each address has to confirm."
  type        = set(string)
  default     = []
}
