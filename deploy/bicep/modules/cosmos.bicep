// The account, database and container of the twin documents, and the daemon's role to read and write them.

@description('Region of the account. The account has only this region, so it has one write region.')
param location string

@description('Name of the account, which is part of its host name.')
@minLength(3)
@maxLength(44)
param accountName string

@description('Name of the database.')
@minLength(1)
@maxLength(255)
param databaseName string

@description('Name of the container.')
@minLength(1)
@maxLength(255)
param containerName string

@description('Throughput mode.')
@allowed([
  'autoscale'
  'manual'
  'serverless'
])
param throughputMode string

@description('Request units per second: the maximum for autoscale (a multiple of 1000), or the fixed value for manual (a multiple of 100). Not used for serverless.')
@minValue(400)
param throughput int

@description('Whether the account uses the availability zones of the region.')
param zoneRedundant bool

@description('Whether the account allows access from public networks.')
@allowed([
  'Enabled'
  'Disabled'
])
param publicNetworkAccess string

@description('Object id of the daemon\'s identity.')
param principalId string

@description('Tags of the account.')
param tags object

var roles = loadJsonContent('../roles.json')
var serverlessCapabilities = [
  {
    name: 'EnableServerless'
  }
]
var autoscaleOptions = {
  autoscaleSettings: {
    maxThroughput: throughput
  }
}
var manualOptions = {
  throughput: throughput
}
var provisionedOptions = throughputMode == 'autoscale' ? autoscaleOptions : manualOptions

resource account 'Microsoft.DocumentDB/databaseAccounts@2024-11-15' = {
  name: accountName
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    // With a weaker level, a read may miss an earlier write.
    consistencyPolicy: {
      defaultConsistencyLevel: 'Session'
    }
    // Conditional writes are checked within one region only. With several write regions, the last write silently wins.
    enableMultipleWriteLocations: false
    enableAutomaticFailover: false
    locations: [
      {
        locationName: location
        failoverPriority: 0
        isZoneRedundant: zoneRedundant
      }
    ]
    capabilities: throughputMode == 'serverless' ? serverlessCapabilities : []
    // All access uses tokens. Keys would allow access without a role.
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: publicNetworkAccess
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15' = {
  parent: account
  name: databaseName
  properties: {
    resource: {
      id: databaseName
    }
  }
}

resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = {
  parent: database
  name: containerName
  properties: {
    resource: {
      id: containerName
      partitionKey: {
        kind: 'Hash'
        paths: [
          '/deviceId'
        ]
        version: 2
      }
      // Enabled without a default value: only tombstones of deleted twins expire, and each has its own time to live.
      defaultTtl: -1
      indexingPolicy: loadJsonContent('../../cosmos/indexing-policy.json')
    }
    options: throughputMode == 'serverless' ? {} : provisionedOptions
  }
}

// A role of the account's data plane, which the portal's access control page does not show.
resource contributor 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  parent: account
  name: guid(database.id, principalId, roles['Cosmos DB Built-in Data Contributor'])
  properties: {
    principalId: principalId
    roleDefinitionId: '${account.id}/sqlRoleDefinitions/${roles['Cosmos DB Built-in Data Contributor']}'
    scope: '${account.id}/dbs/${database.name}'
  }
}

@description('Endpoint of the account.')
output endpoint string = account.properties.documentEndpoint

@description('Name of the database.')
output databaseName string = database.name

@description('Name of the container.')
output containerName string = container.name
