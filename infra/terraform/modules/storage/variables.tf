variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "suffix" {
  description = "Makes the buckets' names unique in the world, for example the account id."
  type        = string
}

variable "kms_key_arn" {
  type = string
}

variable "away_buckets" {
  description = "Which of artifacts, snapshots, archive are copied to another region."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.away_buckets, ["artifacts", "snapshots", "archive"])) == 0
    error_message = "away_buckets has artifacts, snapshots and archive at most."
  }
}

variable "away_region" {
  type    = string
  default = null
}

variable "away_kms_key_arn" {
  description = "Key in the other region."
  type        = string
  default     = null
}
