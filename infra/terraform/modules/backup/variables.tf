variable "name" {
  description = "Prefix of the names; volumes with this value in the tag `backup` are backed up."
  type        = string
}

variable "keep_days" {
  type    = number
  default = 7
}

variable "copy_away" {
  description = "Whether copies are kept in another region."
  type        = bool
}

variable "kms_key_arn" {
  type = string
}

variable "away_region" {
  type = string
}

variable "away_kms_key_arn" {
  description = "Key in the other region."
  type        = string
  default     = null
}
