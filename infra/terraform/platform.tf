# Kubernetes, and the data tier that a team's own services use. Both are off unless an
# environment has them; pulse-node needs neither.

module "eks" {
  source                  = "./modules/eks"
  count                   = local.has_kubernetes ? 1 : 0
  name                    = local.name
  kubernetes_version      = local.env.kubernetes.version
  subnets                 = module.network.private_subnets
  api_from                = var.kubernetes_api_from
  admin_roles             = var.admin_roles
  viewer_roles            = var.viewer_roles
  instance_type           = local.env.kubernetes.instance_type
  nodes_per_zone          = local.env.kubernetes.nodes
  spot_instance_types     = local.env.kubernetes.spot_instance_types
  balancer_security_group = module.access.balancer_security_group
  target_group            = module.alb_dns[0].target_group
  http_port               = local.ports.http
  snapshots_bucket_arn    = module.storage.arns.snapshots
  kms_key_arn             = module.key.kms_key_arn
  protected               = local.is_protected
}

module "data_tier" {
  source  = "./modules/data-tier"
  count   = local.env.data_tier == null ? 0 : 1
  name    = local.name
  vpc_id  = module.network.vpc_id
  subnets = module.network.database_subnets
  clients = merge(
    { nodes = module.access.node_security_group },
    local.has_kubernetes ? { cluster = module.eks[0].security_group } : {},
  )
  database_class   = local.env.data_tier.database_class
  database_gb      = local.env.data_tier.database_gb
  read_replicas    = local.env.data_tier.read_replicas
  cache_class      = local.env.data_tier.cache_class
  cache_nodes      = local.env.data_tier.cache_nodes
  copy_away        = local.has_away
  away_region      = var.away_region
  away_kms_key_arn = one(module.key_away[*].kms_key_arn)
  kms_key_arn      = module.key.kms_key_arn
  protected        = local.is_protected
}
